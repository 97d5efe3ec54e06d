"""What a profile can say: of the search, of retraining, of where trainings run."""
