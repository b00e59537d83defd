"""A shop in Django, in one file. With a server in debug mode running (`./runEverything.sh config/debug/`):

granian --interface wsgi django_shop:app --port 9000
"""

import os

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path

from paychan.sell.django import Till

settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY=os.urandom(32).hex())
till = Till(os.environ.get("SELL_AT", "state/debug/run/sell.sock"))


@till.price(5)  # satoshi
def joke(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"joke": "Why do channels never argue? They settle."})


urlpatterns = [path("joke", joke)]
app = get_wsgi_application()
