"""The commands that moored-lab plugs into `moored`, a file each."""
