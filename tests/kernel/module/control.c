// SPDX-License-Identifier: GPL-2.0-only
/* Module parameters, sysfs attributes and platform devices of the test device */
#include <linux/module.h>
#include <linux/vmalloc.h>

#include "ferry-vfio-testdev.h"

static unsigned int devices = 2;
module_param(devices, uint, 0444);
MODULE_PARM_DESC(devices, "number of devices");
static ulong state_bytes = SZ_1M;
module_param(state_bytes, ulong, 0444);
MODULE_PARM_DESC(state_bytes, "initial state_bytes of the devices");
static uint mig_flags = 7;
module_param(mig_flags, uint, 0444);
MODULE_PARM_DESC(mig_flags, "initial mig_flags of the devices");
static uint dma_logging = 1;
module_param(dma_logging, uint, 0444);
MODULE_PARM_DESC(dma_logging, "initial dma_logging of the devices");
static ulong dirty_rate;
module_param(dirty_rate, ulong, 0444);
MODULE_PARM_DESC(dirty_rate, "initial dirty_rate of the devices");

int ftd_init(struct vfio_device *vdev)
{
	struct ftd *ftd = to_ftd(vdev);

	ftd->ram = vmalloc_user(FTD_RAM_BYTES);
	if (!ftd->ram)
		return -ENOMEM;
	mutex_init(&ftd->lock);
	spin_lock_init(&ftd->knobs);
	xa_init(&ftd->dma_log);
	INIT_DELAYED_WORK(&ftd->auto_dma, ftd_auto_dma_work);
	ftd->mig_state = VFIO_DEVICE_STATE_RUNNING;
	ftd->state_bytes = state_bytes;
	ftd->mig_flags = mig_flags;
	ftd->dma_logging = dma_logging;
	ftd->dirty_rate = dirty_rate;
	ftd->enomsg = 1;
	ftd->read_fail_at = ftd->write_fail_at = -1;
	ftd->image_error = "none";
	ftd_offer(ftd);
	return 0;
}

void ftd_release(struct vfio_device *vdev)
{
	vfree(to_ftd(vdev)->ram);
}

/* sysfs */

static bool ftd_valid(size_t knob, s64 value)
{
	switch (knob) {
	case offsetof(struct ftd, state_bytes):
		return value >= FTD_PAGE && value <= SZ_1G && value % FTD_PAGE == 0;
	case offsetof(struct ftd, mig_flags):
		return value == 0 || value == 1 || value == 3 || value == 5 || value == 7;
	case offsetof(struct ftd, dirty_rate):
		return value >= 0 && value <= SZ_1G;
	case offsetof(struct ftd, dma_rate):
		return value >= 0 && value <= 100000;
	case offsetof(struct ftd, data_size_fails):
		return value >= 0 && value <= MAX_ERRNO;
	case offsetof(struct ftd, read_fail_at):
	case offsetof(struct ftd, write_fail_at):
		return value >= -1;
	}
	return value == 0 || value == 1;
}

static ssize_t ftd_store_number(struct device *dev, size_t knob, bool closed, const char *buf,
				size_t count)
{
	struct ftd *ftd = dev_get_drvdata(dev);
	ssize_t ret = count;
	s64 value;

	if (kstrtos64(buf, 0, &value) || !ftd_valid(knob, value))
		return -EINVAL;
	if (!closed) {
		WRITE_ONCE(*(s64 *)((u8 *)ftd + knob), value);
		return ret;
	}
	mutex_lock(&ftd->lock);
	if (ftd->open) {
		ret = -EBUSY;
	} else {
		*(s64 *)((u8 *)ftd + knob) = value;
		ftd_offer(ftd);
	}
	mutex_unlock(&ftd->lock);
	return ret;
}

#define FTD_NUMBER(name, closed)                                                                 \
	static ssize_t name##_show(struct device *dev, struct device_attribute *attr, char *buf) \
	{                                                                                        \
		return sysfs_emit(buf, "%lld\n",                                                 \
				  READ_ONCE(((struct ftd *)dev_get_drvdata(dev))->name));        \
	}                                                                                        \
	static ssize_t name##_store(struct device *dev, struct device_attribute *attr,           \
				    const char *buf, size_t n)                                   \
	{                                                                                        \
		return ftd_store_number(dev, offsetof(struct ftd, name), closed, buf, n);        \
	}                                                                                        \
	static DEVICE_ATTR_RW(name)

FTD_NUMBER(state_bytes, true);
FTD_NUMBER(mig_flags, true);
FTD_NUMBER(dma_logging, true);
FTD_NUMBER(dirty_rate, false);
FTD_NUMBER(dma_rate, false);
FTD_NUMBER(enomsg, false);
FTD_NUMBER(reject_image, false);
FTD_NUMBER(read_fail_at, false);
FTD_NUMBER(write_fail_at, false);
FTD_NUMBER(data_size_fails, false);

/* Reads "FROM TO NUMBER [WORD]". */
static int ftd_parse_arc(const char *buf, int *from, int *to, u32 *number, char word[16])
{
	char a[16], b[16];

	word[0] = 0;
	if (sscanf(buf, "%15s %15s %u %15s", a, b, number, word) < 3)
		return -EINVAL;
	*from = match_string(ftd_state_names, FTD_STATES, a);
	*to = match_string(ftd_state_names, FTD_STATES, b);
	return *from < 0 || *to < 0 ? -EINVAL : 0;
}

static ssize_t latency_us_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	struct ftd *ftd = dev_get_drvdata(dev);
	int i, n = 0;

	for (i = 0; i < FTD_STATES * FTD_STATES; i++) {
		u32 usec = READ_ONCE(ftd->latency_us[i / FTD_STATES][i % FTD_STATES]);

		if (usec)
			n += sysfs_emit_at(buf, n, "%s %s %u\n", ftd_state_names[i / FTD_STATES],
					   ftd_state_names[i % FTD_STATES], usec);
	}
	return n;
}

static ssize_t latency_us_store(struct device *dev, struct device_attribute *attr, const char *buf,
				size_t count)
{
	struct ftd *ftd = dev_get_drvdata(dev);
	int from, to, i;
	char word[16];
	u32 usec;

	if (!kstrtou32(buf, 0, &usec)) {
		for (i = 0; i < FTD_STATES * FTD_STATES; i++)
			WRITE_ONCE(ftd->latency_us[i / FTD_STATES][i % FTD_STATES], usec);
		return count;
	}
	if (ftd_parse_arc(buf, &from, &to, &usec, word) || word[0])
		return -EINVAL;
	WRITE_ONCE(ftd->latency_us[from][to], usec);
	return count;
}
static DEVICE_ATTR_RW(latency_us);

static ssize_t fail_arc_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	struct ftd *ftd = dev_get_drvdata(dev);
	ssize_t n;

	spin_lock(&ftd->knobs);
	if (ftd->fail_errno)
		n = sysfs_emit(buf, "%s %s %d%s\n", ftd_state_names[ftd->fail_from],
			       ftd_state_names[ftd->fail_to], ftd->fail_errno,
			       ftd->fail_error ? " error" : "");
	else
		n = sysfs_emit(buf, "none\n");
	spin_unlock(&ftd->knobs);
	return n;
}

static ssize_t fail_arc_store(struct device *dev, struct device_attribute *attr, const char *buf,
			      size_t count)
{
	struct ftd *ftd = dev_get_drvdata(dev);
	int from = 0, to = 0;
	char word[16] = "";
	u32 err = 0;

	if (!sysfs_streq(buf, "none") && (ftd_parse_arc(buf, &from, &to, &err, word) || !err ||
					  err > MAX_ERRNO || (word[0] && strcmp(word, "error"))))
		return -EINVAL;
	spin_lock(&ftd->knobs);
	ftd->fail_from = from;
	ftd->fail_to = to;
	ftd->fail_errno = err;
	ftd->fail_error = word[0];
	spin_unlock(&ftd->knobs);
	return count;
}
static DEVICE_ATTR_RW(fail_arc);

static ssize_t state_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	struct ftd *ftd = dev_get_drvdata(dev);

	return sysfs_emit(buf, "%s\n", ftd_state_names[READ_ONCE(ftd->mig_state)]);
}
static DEVICE_ATTR_RO(state);

static ssize_t state_log_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	struct ftd *ftd = dev_get_drvdata(dev);
	unsigned int i;
	int n = 0;

	spin_lock(&ftd->knobs);
	for (i = ftd->logged > FTD_LOG_ENTRIES ? ftd->logged - FTD_LOG_ENTRIES : 0; i < ftd->logged;
	     i++)
		n += sysfs_emit_at(buf, n, "%s\n", ftd_state_names[ftd->log[i % FTD_LOG_ENTRIES]]);
	spin_unlock(&ftd->knobs);
	return n;
}

static ssize_t state_log_store(struct device *dev, struct device_attribute *attr, const char *buf,
			       size_t count)
{
	struct ftd *ftd = dev_get_drvdata(dev);

	spin_lock(&ftd->knobs);
	ftd->logged = 0;
	spin_unlock(&ftd->knobs);
	return count;
}
static DEVICE_ATTR_RW(state_log);

static ssize_t resets_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%u\n", READ_ONCE(((struct ftd *)dev_get_drvdata(dev))->resets));
}
static DEVICE_ATTR_RO(resets);

static ssize_t image_error_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%s\n",
			  READ_ONCE(((struct ftd *)dev_get_drvdata(dev))->image_error));
}
static DEVICE_ATTR_RO(image_error);

static struct attribute *ftd_attrs[] = {
	&dev_attr_state_bytes.attr,	&dev_attr_mig_flags.attr,
	&dev_attr_dma_logging.attr,	&dev_attr_dirty_rate.attr,
	&dev_attr_dma_rate.attr,	&dev_attr_enomsg.attr,
	&dev_attr_latency_us.attr,	&dev_attr_fail_arc.attr,
	&dev_attr_reject_image.attr,	&dev_attr_read_fail_at.attr,
	&dev_attr_write_fail_at.attr,	&dev_attr_data_size_fails.attr,
	&dev_attr_state.attr,		&dev_attr_state_log.attr,
	&dev_attr_resets.attr,		&dev_attr_image_error.attr,
	NULL,
};
ATTRIBUTE_GROUPS(ftd);

/* The platform devices */

static int ftd_probe(struct platform_device *pdev)
{
	struct ftd *ftd = vfio_alloc_device(ftd, vdev, &pdev->dev, &ftd_ops);
	int ret;

	if (IS_ERR(ftd))
		return PTR_ERR(ftd);
	platform_set_drvdata(pdev, ftd);
	ret = vfio_register_emulated_iommu_dev(&ftd->vdev);
	if (ret)
		vfio_put_device(&ftd->vdev);
	return ret;
}

static void ftd_remove(struct platform_device *pdev)
{
	struct ftd *ftd = platform_get_drvdata(pdev);

	vfio_unregister_group_dev(&ftd->vdev);
	vfio_put_device(&ftd->vdev);
}

static struct platform_driver ftd_driver = {
	.driver = {
		.name = "ferry",
		.dev_groups = ftd_groups,
	},
	.probe = ftd_probe,
	.remove = ftd_remove,
};

static struct platform_device **ftd_devices;

static void __exit ftd_module_exit(void)
{
	unsigned int i;

	for (i = 0; i < devices; i++)
		platform_device_unregister(ftd_devices[i]);
	platform_driver_unregister(&ftd_driver);
	kfree(ftd_devices);
}

static int __init ftd_module_init(void)
{
	unsigned int i, wanted = devices;
	int ret;

	if (!ftd_valid(offsetof(struct ftd, state_bytes), state_bytes) ||
	    !ftd_valid(offsetof(struct ftd, mig_flags), mig_flags) ||
	    !ftd_valid(offsetof(struct ftd, dirty_rate), dirty_rate))
		return -EINVAL;
	ftd_devices = kcalloc(wanted, sizeof(*ftd_devices), GFP_KERNEL);
	if (!ftd_devices)
		return -ENOMEM;
	ret = platform_driver_register(&ftd_driver);
	if (ret) {
		kfree(ftd_devices);
		return ret;
	}
	for (i = 0; i < wanted; i++) {
		ftd_devices[i] = platform_device_register_simple("ferry", i, NULL, 0);
		if (IS_ERR(ftd_devices[i])) {
			ret = PTR_ERR(ftd_devices[i]);
			devices = i;
			ftd_module_exit();
			return ret;
		}
	}
	return 0;
}

module_init(ftd_module_init);
module_exit(ftd_module_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("VFIO device without hardware, for migration tests");
#if IS_ENABLED(CONFIG_IOMMUFD_DRIVER)
MODULE_IMPORT_NS(IOMMUFD);
#endif
