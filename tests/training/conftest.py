import shutil

import pytest


@pytest.fixture(scope="session")
def data(tmp_path_factory, image_folder):
    """The images of `image_folder` with eight of them for validation."""
    folder = tmp_path_factory.mktemp("split")
    for index, path in enumerate(sorted(image_folder.rglob("*.png"))):
        part = folder / ("validation" if index % 5 == 0 else "train") / path.parent.name
        part.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, part)
    return folder
