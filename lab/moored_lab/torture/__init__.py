"""Torture: native threads meet every way in which Python can end, in cases drawn at random."""
