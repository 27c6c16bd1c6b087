"""What tables and figures are made of, and how they become text: terminal, CSV, Markdown, pictures."""
