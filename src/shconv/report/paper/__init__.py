"""The paper's tables, figures and what they show in words."""
