"""Sell what a Django project answers. Against a server in debug mode, which moves no money:

    ./runEverything.sh config/debug/
    .venv/bin/pip install django
    .venv/bin/granian --interface wsgi --port 8080 examples.sell_django:app

then, in another terminal, examples/buy.py. A whole project in one file, to be short; the lines that sell are marked.
"""

import secrets

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path

from paychan.sell.django import Till  # sells

settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY=secrets.token_hex())

till = Till("state/debug/run/sell.sock", realm="Numbers")  # sells


@till.price(5)  # sells, for 5 satoshi
def joke(request: HttpRequest) -> JsonResponse:
    """Tell a number that nobody has heard before."""
    return JsonResponse(secrets.token_hex(8), safe=False)


urlpatterns = [path("joke", joke)]
app = get_wsgi_application()
