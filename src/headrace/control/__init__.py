"""The only API that changes the house: who asks, whether they may, what they did."""
