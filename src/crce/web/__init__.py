"""The web app: pages over the functions and the run folders of the command line."""
