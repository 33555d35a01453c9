"""What `bench` measures: the product's own steps against each other, in interleaved blocks of one run."""
