"""Commands about the data of a training: a look at them, and a setup made for them."""
