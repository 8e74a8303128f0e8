"""Recipes: values only, one module a recipe, each with one `RECIPE`."""
