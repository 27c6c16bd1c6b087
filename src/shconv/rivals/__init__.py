"""Every defence and every relative of SHC on one table: which there are, how long each may train, what each costs, and
what became of the same images under the same attacks."""
