"""stub"""
def table(kinds, counts): return []
