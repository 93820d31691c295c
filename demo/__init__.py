"""The small model that ships with the pack, the world it knows, and the judge that reads its pictures."""
