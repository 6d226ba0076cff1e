"""A small application on the shop's models, by several threads."""

import datetime
import random
import threading
import uuid

from django.contrib.auth.models import User
from django.contrib.sessions.backends.db import SessionStore
from django.db import DatabaseError, IntegrityError, connection, transaction
from django.db.models import Avg, Count, F, Q, Sum
from django.utils import timezone

from shop.models import Category, Line, Order, Product

WHEN = datetime.datetime(2024, 2, 29, 12, 30, 15, 123456, tzinfo=datetime.timezone.utc)


def show(label, *values):
    print(label, *(repr(v) for v in values))


def catalogue():
    show("categories", Category.objects.count(), Category.objects.get(name="Alles 🦀").category_set.count())
    products = list(Product.objects.order_by("sku"))
    show("products", [(p.sku, p.title, p.price, p.stock, p.version) for p in products[:4]])
    for i, product in enumerate(products):
        product.details = {"größe": i, "list": [1, None, "🦀"], "deep": {"x": {"y": i}}}
        product.picture = bytes(range(256)) * (i + 1)
        product.code = uuid.UUID(int=i)
        product.stock = 1000
    Product.objects.bulk_update(products, ["details", "picture", "code", "stock"])
    one = Product.objects.get(details__größe=7)
    show("by json", one.sku, one.code, bytes(one.picture) == bytes(range(256)) * 8, one.details)
    made, created = Product.objects.get_or_create(sku="neu", defaults={"title": "Neu", "price": "1.10"})
    again, created_again = Product.objects.get_or_create(sku="neu", defaults={"title": "Neu", "price": "1.10"})
    show("get_or_create", created, created_again, made.pk == again.pk)
    Product.objects.update_or_create(sku="neu", defaults={"price": "2.20"})
    show("updated", Product.objects.filter(sku="neu").update(price=F("price") * 2, version=F("version") + 1))
    made.refresh_from_db()
    show("refreshed", made.price, made.version)
    show("aggregate", Product.objects.aggregate(Sum("price"), Avg("price"), Count("id")))
    grouped = Category.objects.annotate(n=Count("product"), s=Sum("product__price")).order_by("name")
    show("grouped", list(grouped.values_list("name", "n", "s")))
    found = Product.objects.filter(Q(title__icontains="stück 1") | Q(price__lt=2)).exclude(stock=0).order_by("-sku")
    show("found", [p.sku for p in found.select_related("category")[:5]])


def refusals():
    try:
        with transaction.atomic():
            Category.objects.create(name="gone")
            Product.objects.create(sku="neu", title="zweimal", price=1)
    except IntegrityError as e:
        show("duplicate", e.args[0])
    try:
        with transaction.atomic():
            Product.objects.filter(sku="neu").update(price=-1)
    except DatabaseError as e:
        show("check", type(e).__name__, e.args[0])
    with transaction.atomic():
        Category.objects.create(name="kept")
        try:
            with transaction.atomic():
                Category.objects.create(name="inner")
                raise ValueError
        except ValueError:
            pass
    show("savepoints", list(Category.objects.filter(name__in=["gone", "kept", "inner"]).values_list("name", flat=True)))


def customer(n, failures):
    rng = random.Random(n)
    try:
        user = User.objects.create_user(f"käufer{n}", password="pw", first_name="🦀")
        session = SessionStore()
        session["cart"] = {"n": n}
        session.save()
        for i in range(8):
            try:
                place(user, rng, i)
            except KeyError:
                pass
        store = SessionStore(session_key=session.session_key)
        assert store["cart"] == {"n": n}
        store["cart"] = {"n": -n}
        store.save()
        assert SessionStore(session_key=session.session_key)["cart"] == {"n": -n}
        Order.objects.filter(pk__in=list(user.order_set.filter(paid=False).values_list("pk", flat=True))).update(note="offen")
        first = user.order_set.order_by("pk").first()
        first.lines.filter(pk__in=list(first.lines.values_list("pk", flat=True))).delete()
        Order.objects.filter(pk=first.pk).delete()
    except Exception as e:
        failures.append(e)
        raise
    finally:
        connection.close()


def place(user, rng, i):
    """One order: rows locked in the order of their keys, stock taken."""
    with transaction.atomic():
        skus = sorted(rng.sample([f"sku-{k}" for k in range(20)], 3))
        chosen = list(Product.objects.select_for_update().filter(sku__in=skus).order_by("id"))
        order = Order.objects.create(
            buyer=user,
            placed=WHEN + datetime.timedelta(microseconds=i),
            day=WHEN.date(),
            took=datetime.timedelta(days=1, microseconds=i) if i % 2 else None,
            note="ä" * i,
        )
        Line.objects.bulk_create([Line(order=order, product=p, count=1 + i) for p in chosen])
        for product in chosen:
            product.stock = F("stock") - (1 + i)
            product.save(update_fields=["stock"])
        if i == 5:
            raise KeyError("given up")
        order.paid = i % 3 == 0
        order.save()


def orders():
    failures = []
    threads = [threading.Thread(target=customer, args=(n, failures)) for n in range(4)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert not failures, failures
    show("orders", Order.objects.count(), Line.objects.aggregate(Sum("count")), Order.objects.filter(paid=True).count())
    taken = Product.objects.filter(sku__startswith="sku-").aggregate(s=Sum("stock"))["s"]
    show("stock", taken)
    by_user = User.objects.annotate(n=Count("order__lines")).order_by("username").values_list("username", "n")
    show("by user", list(by_user))
    one = Order.objects.filter(took__isnull=False).order_by("placed").first()
    show("one", one.placed, one.day, one.took, timezone.is_aware(one.placed))
    show("iterated", sum(1 for _ in Line.objects.order_by("pk").iterator(chunk_size=10)))


def run():
    catalogue()
    refusals()
    orders()
    with connection.cursor() as cursor:
        tables = [t.name for t in connection.introspection.get_table_list(cursor)]
        show("tables", sorted(tables))
        constraints = connection.introspection.get_constraints(cursor, "shop_product")
        show("constraints", sorted((k, v["columns"], v["unique"]) for k, v in constraints.items()))
        cursor.execute("SELECT %s, %s", ["ünï", None])
        show("raw", cursor.fetchall())
