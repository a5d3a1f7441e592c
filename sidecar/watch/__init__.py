"""The resident part: sampling loop, scout, captures and upload supervision."""
