from jinja2 import Template


def page(name):
    return Template("<h1>Hello, {{ name|e }}!</h1>").render(name=name)
