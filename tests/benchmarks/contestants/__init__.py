"""One file for each contestant; `name:variant` on the command line. Nothing else lists them."""
