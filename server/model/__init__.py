"""Nouns, states, rules and errors. No I/O, no clock, no randomness: whatever is needed is handed in."""
