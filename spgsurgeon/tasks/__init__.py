"""Tasks: what a model is trained and scored for, each in one file. Nothing above this room names one."""
