"""What the shop keeps."""

from django.db import models


class Category(models.Model):
    name = models.CharField(max_length=80, unique=True)
    parent = models.ForeignKey("self", null=True, on_delete=models.SET_NULL)


class Product(models.Model):
    sku = models.SlugField(unique=True)
    title = models.CharField(max_length=120, db_index=True)
    price = models.DecimalField(max_digits=9, decimal_places=2)
    stock = models.PositiveIntegerField(default=0)
    weight = models.FloatField(null=True)
    details = models.JSONField(default=dict)
    picture = models.BinaryField(null=True)
    code = models.UUIDField(null=True)
    category = models.ForeignKey(Category, null=True, on_delete=models.PROTECT)
    added = models.DateTimeField(auto_now_add=True)
    version = models.IntegerField(default=1)

    class Meta:
        indexes = [models.Index(fields=["category", "price"])]
        constraints = [models.CheckConstraint(condition=models.Q(price__gte=0), name="price_not_negative")]


class Order(models.Model):
    buyer = models.ForeignKey("auth.User", on_delete=models.CASCADE)
    placed = models.DateTimeField()
    day = models.DateField()
    took = models.DurationField(null=True)
    note = models.TextField(blank=True)
    paid = models.BooleanField(default=False)


class Line(models.Model):
    order = models.ForeignKey(Order, related_name="lines", on_delete=models.CASCADE)
    product = models.ForeignKey(Product, on_delete=models.PROTECT)
    count = models.PositiveSmallIntegerField()

    class Meta:
        unique_together = [("order", "product")]
