"""The command line: thin verbs over the functions of the package, one file each."""
