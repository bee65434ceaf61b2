"""Everything reusable of UltraLight, one purpose a module; imports run one way, from `schema` outwards."""
