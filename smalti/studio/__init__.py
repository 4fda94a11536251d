"""The studio: one page in which a person changes codes and sees the picture change."""
