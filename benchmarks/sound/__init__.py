"""What the sound tier is worth: attacks on its bounds, their tightness beside other methods, their cost in deep nets."""
