"""Labels that continue over the faces between pieces of a volume."""
