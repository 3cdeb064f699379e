"""Attacks: the threat model, the methods, and the guard around them."""
