"""Every kind of change: columns added, renamed, widened, made NOT NULL with rows
there; indexes, constraints, a new table, data."""

import datetime

from django.db import migrations, models


def fill(apps, schema_editor):
    Category = apps.get_model("shop", "Category")
    Product = apps.get_model("shop", "Product")
    root = Category.objects.create(name="Alles 🦀")
    Category.objects.bulk_create([Category(name=f"Kategorie {i}", parent=root) for i in range(5)])
    first = Category.objects.order_by("id").first()
    for i in range(20):
        Product.objects.create(sku=f"sku-{i}", name=f"Stück {i}", price=i, stock=i if i % 2 else None, category=first)


def empty(apps, schema_editor):
    for name in ("Product", "Category"):
        model = apps.get_model("shop", name)
        model.objects.filter(id__in=list(model.objects.order_by("-id").values_list("id", flat=True))).delete()


class Migration(migrations.Migration):
    dependencies = [("shop", "0001_initial")]
    operations = [
        migrations.RunPython(fill, empty),
        migrations.RenameField("Product", "name", "title"),
        migrations.AlterField("Product", "title", models.CharField(max_length=120, db_index=True)),
        migrations.AlterField("Product", "stock", models.PositiveIntegerField(default=0)),
        migrations.AddField("Product", "details", models.JSONField(default=dict)),
        migrations.AddField("Product", "picture", models.BinaryField(null=True)),
        migrations.AddField("Product", "code", models.UUIDField(null=True)),
        migrations.AddField("Product", "version", models.IntegerField(default=1)),
        migrations.AlterField("Category", "name", models.CharField(max_length=80, unique=True)),
        migrations.AddField("Order", "day", models.DateField(default=datetime.date(2020, 1, 1))),
        migrations.AlterField("Order", "day", models.DateField()),
        migrations.AddField("Order", "took", models.DurationField(null=True)),
        migrations.AddField("Order", "paid", models.BooleanField(default=False)),
        migrations.CreateModel(
            name="Line",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("count", models.PositiveSmallIntegerField()),
                ("order", models.ForeignKey(on_delete=models.CASCADE, related_name="lines", to="shop.order")),
                ("product", models.ForeignKey(on_delete=models.PROTECT, to="shop.product")),
            ],
            options={"unique_together": {("order", "product")}},
        ),
        migrations.AddIndex("Product", models.Index(fields=["category", "price"], name="shop_produc_categor_a6f6b4_idx")),
        migrations.AddConstraint(
            "Product", models.CheckConstraint(condition=models.Q(price__gte=0), name="price_not_negative")
        ),
    ]
