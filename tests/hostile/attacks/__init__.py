"""What hostile pricers try, each attack a function; `python -m tests.hostile.attacks TARGETS` tries all of them."""
