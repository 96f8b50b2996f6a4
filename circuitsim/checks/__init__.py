"""What all need: checks of values, fields that declare themselves, interrupts, plugins."""
