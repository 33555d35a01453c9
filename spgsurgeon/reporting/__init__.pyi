from .comparison_plots import comparison_figures
from .gallery import drawings_of
from .page import render_page
from .palette import with_hues
from .thumbnails import with_pictures

__all__ = ["comparison_figures", "drawings_of", "render_page", "with_hues", "with_pictures"]
