"""One pass over the data: its steps, what it takes, where it may be saved or left, what it had to remark."""
