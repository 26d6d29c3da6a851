"""The shop's tasks."""

from django.utils import timezone

from i3tasks import task

from .models import Order


@task
async def send_receipt(order_id: int) -> str:
    """Send the receipt of an order. A second run finds that it was sent."""
    order = await Order.objects.aget(pk=order_id)
    if order.receipt_sent_at is None:
        # Here the mail goes out.
        order.receipt_sent_at = timezone.now()
        await order.asave(update_fields=["receipt_sent_at"])
    return f"sent to {order.email}"


@task
async def count_orders() -> int:
    """Count the orders whose receipt was sent."""
    return await Order.objects.filter(receipt_sent_at__isnull=False).acount()
