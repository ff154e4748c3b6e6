"""The command line program: settings, input, and the controller."""
