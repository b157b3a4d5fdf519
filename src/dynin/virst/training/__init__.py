"""How VIRST learns: settings of a run and sentences about videos enter; a VIRST folder leaves."""
