"""The data sets: a module and a file of facts each."""
