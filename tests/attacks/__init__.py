"""What a hostile tool tries; each attack first succeeds where a protection is missing."""
