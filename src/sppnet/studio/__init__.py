"""The studio: teach a detector in the browser by drawing a few boxes (extra ``studio``)."""
