"""The paper's tables and figures, each under its number: table*.rows(study) yields rows, figure*.save(study) arrays."""
