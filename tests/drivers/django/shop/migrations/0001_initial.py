from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True
    dependencies = [migrations.swappable_dependency(settings.AUTH_USER_MODEL)]
    operations = [
        migrations.CreateModel(
            name="Category",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("name", models.CharField(max_length=40)),
                ("parent", models.ForeignKey(null=True, on_delete=models.SET_NULL, to="shop.category")),
            ],
        ),
        migrations.CreateModel(
            name="Product",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("sku", models.SlugField(unique=True)),
                ("name", models.CharField(max_length=120)),
                ("price", models.DecimalField(max_digits=9, decimal_places=2)),
                ("stock", models.IntegerField(null=True)),
                ("weight", models.FloatField(null=True)),
                ("added", models.DateTimeField(auto_now_add=True)),
                ("category", models.ForeignKey(null=True, on_delete=models.PROTECT, to="shop.category")),
            ],
        ),
        migrations.CreateModel(
            name="Order",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("placed", models.DateTimeField()),
                ("note", models.TextField(blank=True)),
                ("buyer", models.ForeignKey(on_delete=models.CASCADE, to=settings.AUTH_USER_MODEL)),
            ],
        ),
    ]
