"""A shop on Django: its own migrations, forwards, backwards and forwards again,
then a small application. What it observes is printed, to be compared with a
direct connection's; the last line is "passed", or it raises.

The isolation level is the server's own, REPEATABLE READ: at READ COMMITTED,
Django's default, writes that do not name their rows by key are brought over by
the follower."""

import os
import sys

import django
from django.conf import settings

TLS = os.environ["DRIVER_TLS"] == "1"

settings.configure(
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.mysql",
            "HOST": "127.0.0.1",
            "PORT": os.environ["DRIVER_PORT"],
            "USER": os.environ["DRIVER_USER"],
            "PASSWORD": os.environ["DRIVER_PASSWORD"],
            "NAME": os.environ["DRIVER_DATABASE"],
            "CONN_MAX_AGE": 60,
            "CONN_HEALTH_CHECKS": True,
            "OPTIONS": {
                "charset": "utf8mb4",
                "isolation_level": None,
                "ssl_mode": "REQUIRED" if TLS else "DISABLED",
            },
        }
    },
    INSTALLED_APPS=[
        "django.contrib.contenttypes",
        "django.contrib.auth",
        "django.contrib.sessions",
        "shop",
    ],
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
    SECRET_KEY="of a test",
    USE_TZ=True,
)

if __name__ == "__main__":
    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    call_command("migrate", "shop", "0001", verbosity=0)
    call_command("migrate", "shop", verbosity=0)
    call_command("migrate", "--check", verbosity=0)
    from shop import application

    application.run()
    print("passed")
    sys.exit(0)
