"""Which pixels decide β, and which channels matter for the answer (Captum)."""
