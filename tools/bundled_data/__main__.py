"""Write the bundled data sets: `python -m tools.bundled_data`."""

from tools.bundled_data.write import write

if __name__ == "__main__":
    for path in write():
        print(path)
