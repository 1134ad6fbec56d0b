"""The run database: trainings, their curves, and the predictions made with them."""
