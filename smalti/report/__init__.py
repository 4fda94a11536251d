"""What people look at: self-contained pages, charts, model cards, sheets of samples."""
