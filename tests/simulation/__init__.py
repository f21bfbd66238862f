"""The whole daemon in virtual time against a hostile world: one seed, one history, one verdict."""
