"""What a user of each alternative would run: one module each, importing no more than that user needs.

Every module has a class `Runtime(folder, threads, **options)` with `predict(query)` and `predict_batch(queries)`, which
return label -> value as `UltraLightPredictor` does. `benchmarks.worker` times them in processes of their own.
"""
