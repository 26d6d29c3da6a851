"""Pure rules: no Django, no input or output, no clock but the one that is passed in."""
