"""The recipe: its schema, its reader with places and near names, its writer, and where the shipped ones lie."""
