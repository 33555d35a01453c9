"""What a process stands on: devices, other processes, signals, seeds, memory, installed packages."""
