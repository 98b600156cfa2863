"""Fine-tuning an eager module as its plan says: what is trained, by what, and on what."""
